"""Which endpoint answers next. Pure decisions over what `endpoints` knows; the pipeline acts on them."""
