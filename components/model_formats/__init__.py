"""ModelFormats: converts the model to other formats and tests each before it is shipped."""
