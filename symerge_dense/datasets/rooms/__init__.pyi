from .dataset import Rooms as Rooms
from .render import render_frame as render_frame
from .render import render_set as render_set
from .scene import Camera as Camera
from .scene import Scene as Scene
from .scene import random_scene as random_scene
from .shift import Shift as Shift
