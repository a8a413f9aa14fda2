"""Reading and writing of cases, and invertible preprocessing onto a network's grid."""
