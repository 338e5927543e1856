"""One scenario a file: `cases` names what is compared, `measure` does it for one contestant in a worker."""
