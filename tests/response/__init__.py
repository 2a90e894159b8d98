"""Assessment, options and containment, on histories made by hand."""
