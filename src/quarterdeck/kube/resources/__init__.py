"""The custom resources, a module each. `RESOURCES` in `registry` lists them."""
