"""The parts of the order service. ``order_service.py`` runs them."""
