"""The figures: each module builds one plain plotly document from results, and never fits."""
