"""Results for one case, on the patient's own grid."""
