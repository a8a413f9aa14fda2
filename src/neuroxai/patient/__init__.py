"""What is known of one case, on the patient's own grid."""
