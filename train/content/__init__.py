"""Supplies training crops: photographs, drawn scenes, COCO."""
