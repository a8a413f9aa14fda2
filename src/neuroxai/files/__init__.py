"""How results are written: whole files or none, names, folders."""
