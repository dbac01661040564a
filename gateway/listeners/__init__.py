"""Where bytes come in. Knows sockets, clients and HTTP/1.1; never knows routes, upstreams or what an answer means.

`http.py` is the door to uvicorn, `http1.py` one client connection; both speak ASGI to the application behind them.
"""
