from .curves import draw_curves as draw_curves
from .heatmap import draw_heatmap as draw_heatmap
from .panels import draw_panels as draw_panels
from .ranking import draw_ranking as draw_ranking
