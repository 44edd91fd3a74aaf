from .formats import Format as Format
from .formats import format_of as format_of
from .importer import import_expert as import_expert
from .mmseg_config import config_options as config_options
from .options import NetworkOptions as NetworkOptions
