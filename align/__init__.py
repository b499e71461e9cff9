"""Learning from judgements: generation, filters, training sets, TRL trainers, evaluation."""
