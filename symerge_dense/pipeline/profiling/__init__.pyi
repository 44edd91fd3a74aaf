from .estimate import Forward as Forward
from .estimate import forward_cost as forward_cost
from .estimate import workload as workload
from .file_merge import Cost as Cost
from .step import Bench as Bench
from .table import Row as Row
