"""MT-bench style evaluation: models answer questions, a judge model marks the answers."""
