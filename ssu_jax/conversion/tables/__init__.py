"""One table a published model; `catalogue` in the folder above names them."""
