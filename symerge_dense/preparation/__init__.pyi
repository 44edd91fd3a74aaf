from . import check as check
from . import convert as convert
