"""Routes, a file per noun; they translate between HTTP and the services and decide nothing."""
