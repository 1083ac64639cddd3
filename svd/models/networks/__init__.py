"""The spatio-temporal UNet, the autoencoders and the encoders."""
