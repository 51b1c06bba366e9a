"""What stores keep and what can be called on them: tables of cases that tests of several kinds share."""
