"""The spatio-temporal UNet, the autoencoders, the encoders and their checkpoints."""
