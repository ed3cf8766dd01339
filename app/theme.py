"""Colours and type of gradio's own components; the page's own are in static/page.css. System fonts
only.
"""

from __future__ import annotations

import gradio as gr
from gradio.themes.utils import colors, sizes

SANS = [
    "ui-sans-serif",
    "system-ui",
    "-apple-system",
    "Segoe UI",
    "Roboto",
    "Noto Sans",
    "sans-serif",
]
MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]

THEME = gr.themes.Base(
    primary_hue=colors.teal,
    neutral_hue=colors.stone,
    text_size=sizes.text_md,
    radius_size=sizes.radius_lg,
    font=[gr.themes.Font(name) for name in SANS],
    font_mono=[gr.themes.Font(name) for name in MONO],
).set(
    body_background_fill="#f6f5f2",
    body_background_fill_dark="#141514",
    body_text_color="#1d1f1e",
    body_text_color_dark="#e9e8e4",
    body_text_color_subdued="#5c605d",
    body_text_color_subdued_dark="#a5a8a3",
    block_background_fill="#ffffff",
    block_background_fill_dark="#1e201f",
    block_border_color="#dddad3",
    block_border_color_dark="#373a38",
    block_label_background_fill="#ffffff",
    block_label_background_fill_dark="#1e201f",
    block_label_text_color="#3c403d",
    block_label_text_color_dark="#cfd1cc",
    block_title_text_color="#3c403d",
    block_title_text_color_dark="#cfd1cc",
    block_info_text_color="#5c605d",
    block_info_text_color_dark="#a5a8a3",
    block_shadow="none",
    border_color_primary="#dddad3",
    border_color_primary_dark="#373a38",
    input_background_fill="#ffffff",
    input_background_fill_dark="#171918",
    input_border_color="#aeb1ab",
    input_border_color_dark="#575c58",
    input_placeholder_color="#6f746f",
    input_placeholder_color_dark="#8d918c",
    button_border_width="1px",
    button_large_text_weight="600",
    button_primary_background_fill="#0b655f",
    button_primary_background_fill_hover="#084f4a",
    button_primary_background_fill_dark="#5cc4ba",
    button_primary_background_fill_hover_dark="#7ad4cb",
    button_primary_border_color="#0b655f",
    button_primary_border_color_dark="#5cc4ba",
    button_primary_text_color="#ffffff",
    button_primary_text_color_dark="#062522",
    button_primary_text_color_hover_dark="#062522",
    button_secondary_background_fill="#ffffff",
    button_secondary_background_fill_hover="#f0eee9",
    button_secondary_background_fill_dark="#232625",
    button_secondary_background_fill_hover_dark="#2d3130",
    button_secondary_border_color="#b9bbb5",
    button_secondary_border_color_dark="#575c58",
    button_secondary_text_color="#1d1f1e",
    button_secondary_text_color_dark="#e9e8e4",
    slider_color="#0b655f",
    slider_color_dark="#5cc4ba",
    checkbox_border_color="#8a8e88",
    checkbox_border_color_dark="#868b85",
    checkbox_background_color_selected="#0b655f",
    checkbox_background_color_selected_dark="#2c8f86",
    color_accent="#0b655f",
    color_accent_soft="#e0efec",
    color_accent_soft_dark="#173a37",
)
