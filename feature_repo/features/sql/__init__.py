"""SQL of the feature views, one file a view."""
