"""Networks from elsewhere: what their files mean, as a model of hwrnn or refused with the reason."""
