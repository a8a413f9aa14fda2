from .base import Metric as Metric
from .base import MetricValue as MetricValue
from .judged import Judged as Judged
from .table import METRICS as METRICS
from .table import make_metric as make_metric
