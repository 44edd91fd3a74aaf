from .config import TextConfig as TextConfig
from .encoder import TextEncoder as TextEncoder
from .laboratory import TextLaboratory as TextLaboratory
from .merged import Expert as Expert
from .merged import adapt as adapt
from .sentences import Text as Text
