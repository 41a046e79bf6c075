"""Trained models: what a network is, how it is stored, and how it is asked, with and without torch.

``networks`` is the only file here that loads torch and ``onnx_graph`` the only one that loads onnx; a backtest
needs neither. Import the files by name: this package imports nothing by itself.
"""
