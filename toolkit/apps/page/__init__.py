"""The page in a browser: texts, files and models, on the same functions as the command line."""
