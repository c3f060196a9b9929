"""`curate view`: a web page over one run of a corpus, with its clips playing."""
