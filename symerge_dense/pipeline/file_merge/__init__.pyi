from .inputs import Inputs as Inputs
from .inputs import open_inputs as open_inputs
from .merge import FileMerge as FileMerge
from .unpack import FileUnpack as FileUnpack
