from .inputs import Inputs as Inputs
from .inputs import open_inputs as open_inputs
from .merge import FileMerge as FileMerge
from .pack import FilePack as FilePack
from .unpack import FileUnpack as FileUnpack
from .unpack_expert import open_packed as open_packed
