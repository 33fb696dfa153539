"""``appliance init --from-butler``: a configuration of Butler becomes one of the appliance.

``convert.py`` calls one module for each part of Butler's file. Facts about its keys: Butler 16.0.4,
its published template and schema (github.com/ptarmiganlabs/butler), and its documentation.
Not for: answering Butler's calls (http_api/butler/).
"""
