"""Cases on disk and in memory, and the invertible way from a scan to a network's grid."""
