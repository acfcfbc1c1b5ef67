"""A pushed model behind HTTP, on Starlette and uvicorn. Imports TensorFlow, but neither TFX nor Beam."""
