"""The report: one page that holds a whole study, written from results, never fitting."""
