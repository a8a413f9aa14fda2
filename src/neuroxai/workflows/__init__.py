"""A model and a case go in, a result object comes out; nothing is written or printed."""
