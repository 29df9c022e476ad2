"""The formats of labelling tools, a file each; `formats.FORMATS` lists them."""
