from . import importing as importing
from .recipe import Recipe as Recipe
from .statistics import collect as collect
from .statistics import log_likelihood as log_likelihood
from .statistics import merged_grams as merged_grams
from .training import fit as fit
