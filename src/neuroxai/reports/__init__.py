"""What a workflow leaves on disk, named as the workflow."""
