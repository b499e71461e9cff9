"""People judging model outputs: guidelines, Argilla, the ledger, agreement and consensus."""
