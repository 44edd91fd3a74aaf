from . import frame as frame
from . import language as language
