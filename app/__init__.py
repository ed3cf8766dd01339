"""The web page of Whence: one module per panel, thin handlers. The only part of the project that
imports gradio.
"""
