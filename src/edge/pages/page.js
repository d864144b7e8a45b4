// What the page at / does.
