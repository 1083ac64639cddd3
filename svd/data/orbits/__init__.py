"""Views around objects: meshes and filmed objects in, tars of views out."""
