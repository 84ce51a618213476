"""The table of mutants: every guard on which privacy rests, and what to put in its place to break it."""

from tools.mutation import (
    guards_of_analysis,
    guards_of_deliveries,
    guards_of_gradients,
    guards_of_inductor,
    guards_of_mechanism,
    guards_of_numbers,
    guards_of_surroundings,
    guards_of_validation,
)
from tools.mutation.guard import Mutant

__all__ = ["MUTANTS", "Mutant"]

MUTANTS = (
    *guards_of_gradients.MUTANTS,
    *guards_of_mechanism.MUTANTS,
    *guards_of_analysis.MUTANTS,
    *guards_of_surroundings.MUTANTS,
    *guards_of_deliveries.MUTANTS,
    *guards_of_numbers.MUTANTS,
    *guards_of_inductor.MUTANTS,
    *guards_of_validation.MUTANTS,
)
