// What the page at /doctor does.
