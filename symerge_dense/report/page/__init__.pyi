from .document import write_page as write_page
