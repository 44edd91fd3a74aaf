from .convert import convert_tool as convert_tool
from .manifest import read_manifest as read_manifest
from .packagings import open_split as open_split
from .packagings import packaging_class as packaging_class
