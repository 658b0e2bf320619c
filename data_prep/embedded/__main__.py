"""Builds the embedded data set: ``python -m data_prep.embedded OUT_DIR``."""

from absl import app

from data_prep.embedded.build import main

if __name__ == "__main__":
    app.run(main)
